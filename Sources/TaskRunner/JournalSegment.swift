import EventLoop
import Glibc
import WireJSON

/// One file of an ``AttemptJournal``: lines of JSON, each of which says one thing of one attempt.
///
/// All lines of an attempt stand in one segment, so a segment whose attempts are closed can be thrown away.
struct JournalSegment: Sendable {
    /// The file, which may be synced while others append to it.
    final class File: Sendable {
        let name: String
        fileprivate let descriptor: Descriptor

        fileprivate init(_ name: String, _ descriptor: consuming Descriptor) {
            self.name = name
            self.descriptor = descriptor
        }

        func synchronize() throws(Errno) { try descriptor.synchronize() }
    }

    let file: File
    /// Attempts that were begun in it and are not closed.
    var openAttempts = 0
    private(set) var bytes: Int
    /// The last line may be there in part.
    private var isTorn: Bool

    /// Longest segment that is read: far above what the attempts that can be open at once may write.
    private static let limit = 1 << 30
    private static let prefix = "attempts-"
    private static let suffix = ".jsonl"

    /// What is said of an attempt.
    enum Line {
        /// What is to be run: one JSON value.
        case attempt([UInt8])
        case process(ProcessIdentity)
        /// What it came to: one JSON value.
        case report([UInt8])
        case closed
    }

    /// Opens the segment, or begins it.
    init(number: Int, in directory: borrowing Directory) throws(Errno) {
        let name = "\(Self.prefix)\(number)\(Self.suffix)"
        // Not blocking: somebody may have put a pipe under this name.
        let flags = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK
        let descriptor = try Descriptor(at: directory.descriptor.number, path: name, flags: flags, mode: 0o644)
        let status = try descriptor.status()
        guard status.st_mode & S_IFMT == S_IFREG else { throw Errno(EINVAL) }
        bytes = Int(status.st_size)
        isTorn = bytes > 0
        file = File(name, descriptor)
    }

    /// The number in the name of a segment; nil for any other name.
    static func number(of name: String) -> Int? {
        guard name.hasPrefix(prefix), name.hasSuffix(suffix) else { return nil }
        return Int(name.dropFirst(prefix.count).dropLast(suffix.count)).flatMap { $0 >= 0 ? $0 : nil }
    }

    /// Adds a line in one write: should this process die within it, the line counts as not written.
    mutating func append(_ line: Line, of attemptID: String) throws(Errno) {
        var text: [UInt8] = []
        // What was written of a line before the disk was full spoils no other.
        if isTorn { text.append(Self.lineFeed) }
        text += Self.text(line, of: attemptID)
        text.append(Self.lineFeed)
        isTorn = true
        bytes += text.count
        try file.descriptor.write(text[...])
        isTorn = false
    }

    private static func text(_ line: Line, of attemptID: String) -> [UInt8] {
        var writer = JSONWriter()
        writer.beginObject()
        writer.field(Field.id, attemptID)
        switch line {
        case .attempt(let document): writer.field(Field.attempt, raw: document)
        case .report(let document): writer.field(Field.report, raw: document)
        case .closed: writer.field(Field.closed, true)
        case .process(let process):
            writer.key(Field.process)
            process.write(to: &writer)
        }
        writer.endObject()
        return writer.bytes
    }

    /// Throws everything away.
    mutating func truncate() throws(Errno) {
        guard ftruncate(file.descriptor.number, 0) == 0 else { throw Errno.current }
        (bytes, isTorn) = (0, false)
    }

    func content(in directory: borrowing Directory) throws(Errno) -> [UInt8] {
        guard let bytes = try directory.read(file.name, limit: Self.limit) else { throw Errno(EFBIG) }
        return bytes
    }

    fileprivate static let lineFeed = UInt8(ascii: "\n")

    /// The names of the fields of a line.
    fileprivate enum Field {
        static let id = "attempt_id"
        static let attempt = "attempt"
        static let process = "process"
        static let report = "report"
        static let closed = "closed"
    }
}

/// Puts the lines of segments together. A value without any I/O.
struct JournalReader {
    private var found: [String: AttemptJournal.Entry] = [:]
    /// What names no attempt, for a person.
    private(set) var damage: [String] = []

    /// The attempts that are not closed, by their names.
    var entries: [AttemptJournal.Entry] { found.values.sorted { $0.attemptID < $1.attemptID } }

    /// Takes one segment in.
    /// - Returns: the attempts that it leaves open.
    mutating func read(_ bytes: [UInt8], name: String) -> [String] {
        var here: Set<String> = []
        for (index, line) in bytes.split(separator: JournalSegment.lineFeed).enumerated() {
            do throws(JSONError) {
                let json = try JSON(parsing: Array(line))
                guard let id = json[JournalSegment.Field.id]?.stringValue else {
                    throw JSONError("it names no attempt", offset: 0)
                }
                here.insert(id)
                take(json, of: id)
            } catch {
                damage.append("line \(index + 1) of \(name): \(error)")
            }
        }
        for id in here where found[id]?.attempt == nil { found[id]?.damage.append("its beginning is missing") }
        return here.filter { found[$0] != nil }
    }

    private mutating func take(_ json: JSON, of id: String) {
        guard json[JournalSegment.Field.closed] == nil else {
            found[id] = nil
            return
        }
        var entry = found[id] ?? AttemptJournal.Entry(attemptID: id)
        if let attempt = json[JournalSegment.Field.attempt] { entry.attempt = attempt }
        if let report = json[JournalSegment.Field.report] { entry.report = report }
        if let process = json[JournalSegment.Field.process] {
            entry.process = ProcessIdentity(process)
            if entry.process == nil { entry.damage.append("the line of its process names none") }
        }
        found[id] = entry
    }
}

extension ProcessIdentity {
    func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.field("pid", pid)
        writer.field("started", started)
        writer.field("boot_id", bootID)
        writer.endObject()
    }

    init?(_ json: JSON) {
        guard let pid = json["pid"]?.intValue.flatMap({ Int32(exactly: $0) }), pid > 1,
            let started = json["started"]?.unsignedValue,
            let bootID = json["boot_id"]?.stringValue
        else { return nil }
        self.init(pid: pid, started: started, bootID: bootID)
    }
}
