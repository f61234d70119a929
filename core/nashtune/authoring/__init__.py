"""What `nashtune new` does: a name in its spellings, and the template of a plugin rendered under it."""
