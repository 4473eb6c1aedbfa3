"""The contract between dq and whatever runs steps, and what both ends of it share.

Frames, links, slots, payloads and functions live here because workers, hosts, clients and the supervisor all speak
through them. This room imports `dq.model` only.
"""
