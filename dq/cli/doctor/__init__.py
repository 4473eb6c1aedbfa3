"""The command that looks for what is wrong with a database and says what to do."""
