"""What the operating system gives: files to write and to read, caches, memory, the console."""
