"""Statements and bytes on their way in from publishers.

speakers     whether a statement is its author's
permission   whether this caller may publish here
outside      how much of the log others than its member may fill
pending      submissions that wait for objects; bounded
arrivals     bytes coming in: resumable, hashed, admitted
artifact     whether all that a `published` statement names is here and right
desk         the calls: Submit, Upload, Adopt
"""
