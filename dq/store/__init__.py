"""The file: the only room that speaks SQL and the only one that imports apsw.

`Store` (store.py) is the single writer and belongs to the supervisor; `Reader` (reader.py) only looks and is for
everybody else. What a transaction writes is a `Group` (group.py). The tables are explained in schema.sql, the views in views.sql.
"""
