"""
What a person meets inside a batch session: how much time and memory is left, and why things ended.

Delivered with the job and used by the person's own server, whatever Jupyter the site has there:
`perijove_session.py` is an extension of the server, `labextension/` one of JupyterLab and
Notebook 7, written so that nothing has to be built or installed. Nothing here is imported by the
hub. The wrapper writes down what is true (`agent/board.py`), the extension tells what of that is
news, the browser says it in its person's language.
"""
