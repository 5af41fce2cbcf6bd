"""Reports: one HTML page that stands alone, and PNG files, of what a command left in its folder.

    sources       finds out what a folder holds, and reads it; `told` says what must be in the files
    charts        pictures as plain values: lines, stacked areas, stacked rows; `scales`, `palette`
    svg, areas    pictures for the page, drawn by ourselves: they follow dark mode and print
    png           the same pictures as files, where matplotlib is installed
    markup, page  HTML in which every text is escaped; the frame, the style, words for who never heard of tmem
    run_page, compare_page, density_page, claims_page        what is on the page of each
    commands      `memcommons report`

Values in, text out: `commands` alone writes, `sources` alone reads.
"""
