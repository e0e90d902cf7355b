"""What holds for the repository as a whole: its shape, its scripts, what its files may say."""
