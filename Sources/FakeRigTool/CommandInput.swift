import Foundation

/// The lines of standard input, waited for no longer than one likes.
struct CommandInput {
    enum Event {
        case line(String)
        /// The time has passed.
        case nothing
        case end
    }

    private var buffer: [UInt8] = []
    private var isAtEnd = false

    /// - Parameter seconds: how long to wait; nil for ever.
    mutating func next(within seconds: Double?) -> Event {
        let deadline = seconds.map { Date.now.addingTimeInterval($0) }
        while true {
            if let end = buffer.firstIndex(of: UInt8(ascii: "\n")) {
                let line = String(decoding: buffer[..<end], as: UTF8.self)
                buffer.removeFirst(end + 1)
                return .line(line)
            }
            if isAtEnd {
                // What stands behind the last newline is a line too.
                defer { buffer = [] }
                return buffer.isEmpty ? .end : .line(String(decoding: buffer, as: UTF8.self))
            }
            let left = deadline.map { max(0, $0.timeIntervalSinceNow) }
            var input = pollfd(fd: 0, events: Int16(POLLIN), revents: 0)
            let count = poll(&input, 1, left.map { Int32(($0 * 1000).rounded(.up)) } ?? -1)
            if count == 0 { return .nothing }
            if count > 0 { fill() }
        }
    }

    private mutating func fill() {
        var chunk = [UInt8](repeating: 0, count: 4096)
        let count = read(0, &chunk, chunk.count)
        if count > 0 {
            buffer += chunk.prefix(count)
        } else if count == 0 || (errno != EINTR && errno != EAGAIN) {
            isAtEnd = true
        }
    }
}
