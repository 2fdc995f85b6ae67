"""The winner as one verified file, and what it is used for."""
