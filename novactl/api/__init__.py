"""What a caller may ask: names become ids, requests are checked, and one function here is one command."""
