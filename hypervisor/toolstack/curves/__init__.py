"""Throughput against overcommit, a curve a scheme, and where the curves cross.  Built on `compare`.

    grid         which runs there are, of which pictures, in which order: pure       commands    the command line
    part         the time that one use of the command has                            crossings   who passes whom: pure
    collecting   runs what is missing while the part lasts, takes what is known      document    as JSON
    curves       `memcommons curves`: checks, runs, puts together, shows             table       as text
    pictures     a PNG file a workload and disk, where matplotlib is installed
"""
