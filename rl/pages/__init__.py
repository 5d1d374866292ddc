"""Pages that a person opens in a browser: one HTML file each, which needs no server, network or build step.

`book` is about single rollouts. `page` assembles any page; styles, scripts and templates are in `assets/`. What a page
shows was written by models and data sets: templates escape it, scripts set text and never markup, and the page's
policy allows no other script.
"""
