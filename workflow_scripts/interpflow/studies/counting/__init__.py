"""Can a model count the words of a category, where does it, and does it keep a running count?"""
