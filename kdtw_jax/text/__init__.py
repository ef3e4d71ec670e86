"""Text as it is compared and encoded, and the language it is in."""
