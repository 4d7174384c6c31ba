"""The sections of a search file, one a module: `mergelib.search.Search` puts them together."""
