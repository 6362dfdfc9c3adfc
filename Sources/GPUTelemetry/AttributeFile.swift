import Glibc
import Synchronization

/// One attribute of a device in sysfs, kept open and read again from its beginning.
///
/// Reading an open attribute makes the kernel ask the driver anew, at half the cost of opening it each time. A
/// device that went away gives ENODEV on the open descriptor; it is then opened by its path again at the next read.
final class AttributeFile: Sendable {
    /// Longer attributes are not what they should be: the kernel's are at most one page.
    static let mostBytes = 4096

    let path: String
    private let descriptor = Mutex<Int32>(-1)

    init(_ path: String) { self.path = path }

    var directory: String { path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "." }

    deinit { close() }

    /// The first line, without white space around it. Missing file: ``SensorFault/unsupported``.
    func line() throws(SensorFault) -> String {
        let bytes = try contents()
        let line = bytes.prefix { $0 != UInt8(ascii: "\n") }
        let text = String(decoding: line, as: UTF8.self)
        guard line.count <= 256, text.utf8.elementsEqual(line), let trimmed = text.trimmed else {
            throw .malformed(shortened(line))
        }
        return trimmed
    }

    /// A whole number, decimal or hexadecimal with 0x.
    func integer() throws(SensorFault) -> Int64 {
        let text = try line()
        let number = text.hasPrefix("0x") ? Int64(text.dropFirst(2), radix: 16) : Int64(text)
        guard let number else { throw .malformed(shortened(text.utf8[...])) }
        return number
    }

    /// All bytes; more than a page is refused.
    func contents() throws(SensorFault) -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: Self.mostBytes + 1)
        let count = try read(into: &buffer)
        guard count <= Self.mostBytes else { throw .malformed("more than \(Self.mostBytes) bytes") }
        buffer.removeLast(buffer.count - count)
        return buffer
    }

    /// Reads once from the beginning. The descriptor is used outside the lock: a read may hang, and ``close`` is
    /// only called when nobody reads.
    private func read(into buffer: inout [UInt8]) throws(SensorFault) -> Int {
        let number = try opened()
        let count = unsafe buffer.withUnsafeMutableBytes { bytes in
            while true {
                let count = unsafe pread(number, bytes.baseAddress, bytes.count, 0)
                if count >= 0 || errno != EINTR { return count }
            }
        }
        if count >= 0 { return count }
        let code = errno
        if code == ENODEV || code == ENXIO || code == ENOENT { close() }
        throw .system(code)
    }

    private func opened() throws(SensorFault) -> Int32 {
        try descriptor.withLock { (number: inout Int32) throws(SensorFault) -> Int32 in
            if number >= 0 { return number }
            // O_NONBLOCK: something that is no attribute (a pipe) must not hold the thread.
            number = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
            if number >= 0 { return number }
            let code = errno
            throw code == ENOENT || code == ENOTDIR ? .unsupported : .system(code)
        }
    }

    /// Gives the descriptor back; the next read opens the path again.
    func close() {
        descriptor.withLock { number in
            if number >= 0 { _ = Glibc.close(number) }
            number = -1
        }
    }
}

/// Bytes for a message to a person: at most 40, control characters replaced.
func shortened(_ bytes: some Sequence<UInt8>) -> String {
    let some = Array(bytes.prefix(41))
    let text = String(decoding: some.prefix(40), as: UTF8.self)
    let clean = text.unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7F ? "\u{FFFD}" : String($0) }.joined()
    return some.count > 40 ? clean + "…" : clean
}

extension StringProtocol {
    /// Without white space at both ends; nil when nothing is left.
    var trimmed: String? {
        func isSpace(_ character: Character) -> Bool { character.isWhitespace }
        let rest = drop(while: isSpace)
        let kept = rest.reversed().drop(while: isSpace).reversed()
        return kept.isEmpty ? nil : String(kept)
    }
}
