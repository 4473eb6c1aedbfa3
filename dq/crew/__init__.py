"""Who does the work: the supervisor, which owns the file, and the processes that it keeps.

The supervisor is one thread and one loop (`supervisor`). It alone writes the file; workers and hosts run user code and
never open it. The template and what it forks import nothing of this room but `template`.
"""
