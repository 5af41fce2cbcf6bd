"""The same work under several schemes, many times, with intervals; and how many guests fit.

    points       which runs there are: pure                  keep        the files of finished points
    identity     what makes a finished point usable again    series      runs points one at a time, keeps each
    statistics   Student's t, intervals, Jain's index: pure  figures     what is compared, taken from a summary: pure
    pairs        which of two schemes is faster, if any: pure
    progress     the bar, with an estimate of the rest       session     what is read and decided first; the folder
    compare      `memcommons compare`                        outcome     what all runs come to: pure;  table  as text
    density      `memcommons density`                        search      the next count to try: pure
    fitting      whether a count fits: pure                  density_table   the answer as text and as JSON
    pictures     PNG files, drawn by `reporting`             commands    the command line
"""
