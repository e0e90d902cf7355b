"""The API over HTTP: the operations of the sockets under addresses, for programs that hold a token.

server        listens, and bounds what strangers may hold
face          one request, from its address to its answer
routes        every address, in one table
reading       a request as the line that would say the same on a socket
confinement   what a token of one teamspace reaches
problems      refusals, and the status of each code
limits        how much a token may ask for at a time
files, stream, metrics, openapi   what is no operation
"""
