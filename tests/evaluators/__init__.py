"""What stored configurations lead to, by the rules of who acts on them, with a fake clock."""
