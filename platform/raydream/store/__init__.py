"""Durable storage: files that are whole or absent, folders here and in stores, shards of images, learned states."""
