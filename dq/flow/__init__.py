"""What user code touches: decorators, futures, the context of a run, and the host that replays runs."""
