"""What a game keeps of its rounds: files that prove themselves, and the records in them."""
