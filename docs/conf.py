"""Sphinx configuration: MyST pages, the furo theme, warnings are errors (`make docs`)."""

from importlib.metadata import version as version_of

project = "Perijove"
author = "The Perijove developers"
project_copyright = "2026, The Perijove developers"
release = version = version_of("perijove")

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = "Perijove"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#8a4b12", "color-brand-content": "#8a4b12"},
    "dark_css_variables": {"color-brand-primary": "#f0b070", "color-brand-content": "#f0b070"},
}
# No page may fetch anything from elsewhere.
html_use_index = False
html_show_sourcelink = False
