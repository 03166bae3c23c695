"""What an attacker can change of a flow of TON_IoT's network file, and what must hold of every flow.

The attacker is the source of the flow. It can send more: pad its payload, repeat packets, wait. It can never send less
than its attack needs, so numbers only grow; it does not choose what the victim answers, how the monitor names the
protocol, or how the connection ends.

=========================  ==========================================================================================
column                     what an attacker can do with it
=========================  ==========================================================================================
duration                   wait longer; a flow of a single packet lasts 0 s
src_bytes                  pad the payload, in whole bytes; not where TCP carries none, since an unanswered or refused
                           connection has nothing to carry it
src_pkts                   send more packets, in whole packets; not where the connection was refused, since each would
                           be refused again and so change the answer
src_ip_bytes               follows: payload and 40 bytes of headers a packet (TCP without options; UDP and ICMP 28)
http_request_body_len      pad the body, in whole bytes, by no more than the payload; only of a request
dns_RD                     ask for recursion or not; only of a DNS query
http_version               speak 1.0 or 1.1; only of a request
everything else            nothing: the victim's answers (dst_*, *_resp_*, status codes, dns_AA, dns_RA, dns_rcode,
                           dns_rejected), what both negotiate (ssl_*), what the monitor concludes (service, conn_state,
                           missed_bytes, weird_*), and what is the attack itself (proto, dns_qtype, http_method, ...)
=========================  ==========================================================================================

Source: the idea of a table of perturbable features follows Apruzzese et al. (2022), Modeling realistic adversarial
attacks against network intrusion detection systems, section 4, and the sums and bounds those of TabularBench's CTU-13
(Simonetto et al. 2024). Which columns there are, and that every row of the file keeps these rules: TON_IoT itself.
"""

FREE = ("duration", "src_bytes", "src_pkts", "http_request_body_len")
"""Numbers that an attacker can raise."""
WHOLE = ("src_bytes", "src_pkts", "src_ip_bytes", "http_request_body_len")
"""Those that are integers."""
CHOICES = {"dns_RD": ("F", "T"), "http_version": ("1.0", "1.1")}
"""Categories that an attacker can choose among, where the column applies."""
HEADER = {"tcp": 40, "udp": 28, "icmp": 28}
"""Bytes of headers of a packet: IP 20, TCP 20, UDP and ICMP 8."""
REFUSED = ("REJ",)
"""States of a connection that was refused."""
MTU = 1500
"""Most bytes of a packet."""
NEEDED = (
    "proto",
    "conn_state",
    "dst_pkts",
    "src_ip_bytes",
    "http_method",
    *FREE,
    *CHOICES,
)
