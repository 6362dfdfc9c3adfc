import Glibc

/// Hears what the kernel says about devices (netlink, NETLINK_KOBJECT_UEVENT), itself and through udev.
///
/// A network namespace of its own (a container) hears nothing.
package struct UEventSocket: ~Copyable, Sendable {
    private let descriptor: Int32

    private static let kernelGroup: UInt32 = 1
    private static let udevGroup: UInt32 = 2
    /// NETLINK_KOBJECT_UEVENT of linux/netlink.h.
    private static let protocolNumber: Int32 = 15

    /// Opens the socket, or tells the errno why it cannot be had.
    package init() throws(SensorFault) {
        let type = Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        descriptor = socket(AF_NETLINK, type, Self.protocolNumber)
        guard descriptor >= 0 else { throw .system(errno) }
        var address = NetlinkAddress(groups: Self.kernelGroup | Self.udevGroup)
        let length = socklen_t(MemoryLayout<NetlinkAddress>.size)
        let result = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe bind(descriptor, $0, length) }
        }
        guard result == 0 else {
            let code = errno
            close(descriptor)
            throw .system(code)
        }
    }

    deinit { close(descriptor) }

    /// The messages since the last call, without waiting; at most 256, so that a storm does not hold the caller.
    ///
    /// A message that no multicast group brought comes from some local program, and is dropped.
    package borrowing func take() -> [UEvent] {
        var events: [UEvent] = []
        var buffer = [UInt8](repeating: 0, count: UEvent.mostBytes)
        for _ in 0..<256 {
            var sender = NetlinkAddress(groups: 0)
            var length = socklen_t(MemoryLayout<NetlinkAddress>.size)
            let count = unsafe withUnsafeMutablePointer(to: &sender) { pointer in
                unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                    unsafe recvfrom(descriptor, &buffer, buffer.count, 0, address, &length)
                }
            }
            if count < 0 && (errno == EINTR || errno == ENOBUFS) { continue }
            guard count > 0 else { break }
            guard sender.groups != 0, let event = UEvent(parsing: Array(buffer[..<count])) else { continue }
            events.append(event)
        }
        return events
    }
}

/// `struct sockaddr_nl`, which Swift's Glibc module lacks.
private struct NetlinkAddress {
    var family = sa_family_t(AF_NETLINK)
    var padding: UInt16 = 0
    var port: UInt32 = 0
    var groups: UInt32

    init(groups: UInt32) { self.groups = groups }
}
