"""Items of small tasks and neutral texts: built in, of own files, and written."""
