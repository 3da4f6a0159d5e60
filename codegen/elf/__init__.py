"""Module linker: relocatable ELF objects from LLVM in, one shared object that ``dlopen`` accepts out."""

from polycomp.codegen.elf.linker import ALLOWED_IMPORTS, link_shared

__all__ = ["ALLOWED_IMPORTS", "link_shared"]
