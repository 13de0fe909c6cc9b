"""Certification runs over whole data sets, as resumable shards in a folder."""
