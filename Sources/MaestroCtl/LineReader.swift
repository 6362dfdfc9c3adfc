import Glibc
import ServiceSupport

/// Reads a file or standard input line by line, without holding all of it.
struct LineReader: Sequence, IteratorProtocol {
    /// Longest line: above what any task may be, so that one that is too long gets its own refusal.
    static let limit = 1 << 20

    /// What the messages call it.
    let name: String
    private(set) var line = 0
    private let file: Descriptor
    private var buffer: [UInt8] = []
    private var start = 0
    private var isAtEnd = false

    private final class Descriptor {
        let number: Int32
        init(_ number: Int32) { self.number = number }
        deinit { if number > 0 { close(number) } }
    }

    /// - Parameter path: a file, or `-` for standard input.
    init(_ path: String) throws(FatalError) {
        name = path == "-" ? "standard input" : path
        let number = path == "-" ? 0 : unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard number >= 0 else {
            throw FatalError(errno == ENOENT ? .notFound : .usage, "\(path): \(SystemError.text(of: errno))")
        }
        file = Descriptor(number)
    }

    /// Whether a second reader of the path gets the same lines: not where it is a pipe, such as a shell's `<(…)`.
    static func canBeReadTwice(_ path: String) -> Bool {
        var status = stat()
        guard path != "-", unsafe stat(path, &status) == 0 else { return false }
        return status.st_mode & S_IFMT == S_IFREG
    }

    /// Whether the next line is here already, so that taking it does not wait.
    var isReady: Bool { isAtEnd || buffer[start...].contains(UInt8(ascii: "\n")) }

    /// The next line without its newline; nil at the end. A line above the limit comes cut.
    mutating func next() -> [UInt8]? {
        while true {
            if let end = buffer[start...].firstIndex(of: UInt8(ascii: "\n")) {
                defer { start = end + 1 }
                line += 1
                return Array(buffer[start..<end].prefix(Self.limit))
            }
            if isAtEnd {
                guard start < buffer.count else { return nil }
                defer { start = buffer.count }
                line += 1
                return Array(buffer[start...].prefix(Self.limit))
            }
            fill()
        }
    }

    private mutating func fill() {
        buffer.removeSubrange(..<start)
        start = 0
        // Of a line that is too long only the beginning is kept.
        if buffer.count > Self.limit { buffer.removeSubrange(Self.limit...) }
        var chunk = [UInt8](repeating: 0, count: 65_536)
        let count = unsafe read(file.number, &chunk, chunk.count)
        if count > 0 {
            buffer.append(contentsOf: chunk.prefix(count))
        } else if count == 0 || errno != EINTR {
            isAtEnd = true
        }
    }
}

extension [UInt8] {
    /// Nothing but white space.
    var isBlank: Bool { allSatisfy { $0 == 0x20 || $0 == 0x09 || $0 == 0x0D } }
}
