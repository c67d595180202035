"""Files that go into the box beside a program: they run there, never here."""
