"""The executors that come with dq, each found by its entry point in the group "dq.executors"."""
