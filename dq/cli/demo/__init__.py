"""The demo: real work on real files, while everything that takes part in it is killed."""
