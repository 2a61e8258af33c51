"""lookup NAME…: the addresses that Python's socket module finds, a line a name."""

import socket
import sys

for name in sys.argv[1:]:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        print("none" if error.errno == socket.EAI_NONAME else error)
    else:
        print(*(one[4][0] for one in found))
