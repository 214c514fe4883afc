"""Charts as inline SVG and as bars of HTML, made when a page is: pure functions of figures."""
