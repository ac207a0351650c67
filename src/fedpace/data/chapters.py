"""The chapters of Python's library reference and the modules each of them documents.

The division is the one of https://docs.python.org/3/library/, with two kinds of departure, both to
keep about a dozen classes of useful size: small chapters are read together with a neighbour (the
name of the class says which), and `builtins` stands with the data types. Modules that have been
removed from the library in Python 3.12 or 3.13 (asyncore, cgi, distutils, imp, nntplib, telnetlib,
...) are left out, so that the classes differ little from one Python to the next. So are the
graphical toolkit, the editor and the demonstrations (tkinter, idlelib, turtledemo), the module
`this`, and `readline`, whose import talks to the terminal.
"""

CHAPTERS = {
    "Text and binary data": """
        codecs difflib gettext locale re rlcompleter string stringprep struct textwrap
        unicodedata""",
    "Data types": """
        array bisect builtins calendar collections collections.abc copy datetime enum graphlib heapq
        pprint reprlib types weakref zoneinfo""",
    "Numeric, mathematical and functional programming": """
        cmath decimal fractions functools itertools math numbers operator random statistics""",
    "Files, persistence, compression and cryptography": """
        bz2 compression configparser copyreg csv dbm filecmp fileinput fnmatch glob gzip hashlib
        hmac linecache lzma marshal netrc os.path pathlib pickle plistlib secrets shelve shutil
        sqlite3 stat tarfile tempfile tomllib zipfile zlib""",
    "Operating system and command line": """
        argparse cmd ctypes curses errno fcntl getopt getpass grp io logging msvcrt optparse
        os platform pty pwd resource shlex syslog termios time tty winreg
        winsound""",
    "Concurrent execution": """
        concurrent contextvars multiprocessing queue sched subprocess threading""",
    "Networking and interprocess communication": """
        asyncio mmap select selectors signal socket ssl""",
    "Internet data handling": """
        base64 binascii email json mailbox mimetypes quopri""",
    "Structured markup and multimedia": """
        colorsys html wave xml""",
    "Internet protocols and support": """
        ftplib http imaplib ipaddress poplib smtplib socketserver urllib uuid webbrowser wsgiref
        xmlrpc""",
    "Development tools, debugging and packaging": """
        bdb cProfile doctest ensurepip faulthandler pdb profile profiling pstats pydoc timeit trace
        tracemalloc typing unittest venv zipapp""",
    "Runtime and language services": """
        __future__ abc annotationlib ast atexit code codeop compileall contextlib dataclasses dis gc
        importlib inspect keyword modulefinder opcode pickletools pkgutil py_compile pyclbr runpy
        site symtable sys sysconfig tabnanny token tokenize traceback warnings zipimport""",
}
"""Class name to the modules it holds; a package's submodules go with it."""

IMPLEMENTS = {
    "_collections_abc": "collections.abc",
    "_py_warnings": "warnings",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_pyio": "io",
    "_strptime": "time",
    "_threading_local": "threading",
    "_weakrefset": "weakref",
    "genericpath": "os.path",
    "ntpath": "os.path",
    "posixpath": "os.path",
}
"""Source files that hold what a public module documents."""

EXTENSIONS = {
    "_bz2": "bz2",
    "_codecs": "codecs",
    "_collections": "collections",
    "_contextvars": "contextvars",
    "_csv": "csv",
    "_ctypes": "ctypes",
    "_curses": "curses",
    "_functools": "functools",
    "_hashlib": "hashlib",
    "_locale": "locale",
    "_lzma": "lzma",
    "_random": "random",
    "_signal": "signal",
    "_socket": "socket",
    "_sqlite3": "sqlite3",
    "_ssl": "ssl",
    "_string": "string",
    "_struct": "struct",
    "_thread": "threading",
    "_tracemalloc": "tracemalloc",
    "_weakref": "weakref",
    "nt": "os",
    "posix": "os",
}
"""Extension modules behind a public module of Python source that does not repeat their text."""
