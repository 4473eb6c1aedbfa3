"""How other processes use the engine: Engine, Executor, Run, and the connection that they share.

A client never opens the database file. It numbers its own steps, keeps each one until the supervisor has it on disk,
and finds or starts a supervisor whenever there is none, so its handles outlive any death on the other side.
"""
