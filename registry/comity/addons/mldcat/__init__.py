"""The catalogue of a node for data portals: MLDCAT-AP, the profile of DCAT-AP for machine learning.

A portal harvests it from the gateway, page by page, or reads the file that the command wrote.
"""
