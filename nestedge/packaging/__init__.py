"""Shipping: the cells of a build to a repository, and from there to a device.

A repository is a plain folder, which any web server serves and any stick carries. Every document in
it has the hash of what it speaks of, so that one number, the hash in index.json, vouches for all
that a device gets:

    index.json -> <device>-<hash>/shipment.json -> .../<cell>/artifact.json -> the files beside it
"""
