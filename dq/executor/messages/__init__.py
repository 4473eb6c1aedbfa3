"""The messages between dq's processes, by who talks to whom. `dq.executor.frames` has them all."""
