"""Class material: word problems by a grammar of ours, their solutions, and parsers that verify both."""
