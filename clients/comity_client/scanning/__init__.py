"""Looking into the files of a folder: the census of what is active in them, and, with the extra [scan], what pickles
import, as picklescan finds it. Nothing is loaded.
"""
