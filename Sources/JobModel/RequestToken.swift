/// Whom to answer: names a request that the shell keeps (``JobTransport/PendingRequests``).
package struct RequestToken: Sendable, Hashable {
    package let number: UInt64

    package init(_ number: UInt64) { self.number = number }
}
