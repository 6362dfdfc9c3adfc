import CProcess
import EventLoop
import Glibc

/// An open file descriptor with one owner, closed at the end of its life.
package struct Descriptor: ~Copyable, Sendable {
    package let number: Int32

    /// Takes over a descriptor that somebody else has opened.
    package init(owning number: Int32) { self.number = number }

    deinit { close(number) }

    /// Opens a path below a directory (`AT_FDCWD` for the process's own). Close-on-exec is always added.
    package init(
        at directory: Int32 = AT_FDCWD,
        path: String,
        flags: Int32,
        mode: mode_t = 0
    ) throws(Errno) {
        let number = unsafe cprocess_openat(directory, path, flags | O_CLOEXEC, mode)
        guard number >= 0 else { throw Errno.current }
        self.number = number
    }

    /// Writes all of the bytes.
    package borrowing func write(_ bytes: ArraySlice<UInt8>) throws(Errno) {
        var rest = bytes
        while !rest.isEmpty {
            let written = unsafe rest.withUnsafeBytes { unsafe Glibc.write(number, $0.baseAddress, $0.count) }
            if written < 0 {
                if errno == EINTR { continue }
                throw Errno.current
            }
            rest = rest.dropFirst(written)
        }
    }

    /// What one read gave.
    package enum ReadOutcome: Equatable {
        case bytes(Int)
        case end
        case wouldBlock
    }

    /// Reads once, at most as much as the buffer holds.
    package borrowing func read(into buffer: inout [UInt8]) throws(Errno) -> ReadOutcome {
        while true {
            let count = unsafe buffer.withUnsafeMutableBytes { unsafe Glibc.read(number, $0.baseAddress, $0.count) }
            if count > 0 { return .bytes(count) }
            if count == 0 { return .end }
            if errno == EAGAIN { return .wouldBlock }
            if errno != EINTR { throw Errno.current }
        }
    }

    /// Reads to the end of the file, at most `limit` bytes; nil when there are more.
    package borrowing func readAll(limit: Int) throws(Errno) -> [UInt8]? {
        var all: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16384)
        while case .bytes(let count) = try read(into: &chunk) {
            guard all.count + count <= limit else { return nil }
            all.append(contentsOf: chunk[..<count])
        }
        return all
    }

    /// Brings what was written onto the disk.
    package borrowing func synchronize() throws(Errno) {
        guard fsync(number) == 0 else { throw Errno.current }
    }

    /// The path that the kernel knows for this descriptor, every symbolic link resolved; " (deleted)" is at its
    /// end when the file is gone.
    package borrowing func realPath() throws(Errno) -> String {
        try readLink("/proc/self/fd/\(number)")
    }

    package borrowing func status() throws(Errno) -> stat {
        var status = stat()
        guard unsafe fstat(number, &status) == 0 else { throw Errno.current }
        return status
    }
}

/// The target of a symbolic link.
func readLink(_ path: String) throws(Errno) -> String {
    var buffer = [UInt8](repeating: 0, count: Int(PATH_MAX))
    let capacity = buffer.count
    let length = unsafe buffer.withUnsafeMutableBytes { bytes in
        unsafe bytes.withMemoryRebound(to: CChar.self) { text in
            guard let start = text.baseAddress else { return -1 }
            return unsafe readlink(path, start, capacity)
        }
    }
    guard length >= 0 else { throw Errno.current }
    return String(decoding: buffer[..<length], as: UTF8.self)
}
