"""Openers that copies get: each reads one format, and takes for granted that the files are as they should be."""
