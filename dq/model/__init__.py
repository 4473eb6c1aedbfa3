"""What things are: states, identities, records, payloads. Standard library only, no input or output."""
