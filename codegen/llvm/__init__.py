"""LLVM: loop nests to IR, IR to objects, and the thread pool and entry functions that every module carries."""
