import EventLoop
import Glibc
import WireJSON

/// The older form of the journal: `<root>/<attempt_id>/` with a file for each thing that is said of the attempt.
///
/// A worker that is upgraded after a crash finds what its earlier life had not reported in this form.
enum AttemptFiles {
    private static let attempt = "attempt.json"
    private static let process = "process.json"
    private static let report = "report.json"
    /// Instead of the report, when nothing more was to be done for the attempt.
    private static let reported = "reported.json"
    /// Longest document that is read.
    private static let limit = 8 << 20

    /// Takes the attempts that are open in this form into a segment, and their files away.
    /// - Parameter makeSegment: asked at the first of them.
    static func move(
        from root: borrowing Directory,
        _ names: [String],
        to makeSegment: () throws(Errno) -> JournalSegment
    ) throws(Errno) {
        var segment: JournalSegment?
        for name in names where !name.hasPrefix(".") && JournalSegment.number(of: name) == nil {
            guard try root.status(of: name).st_mode & S_IFMT == S_IFDIR else { continue }
            let directory = try root.open(name)
            guard directory.exists(attempt), !directory.exists(reported) else { continue }
            var target = if let segment { segment } else { try makeSegment() }
            for line in try lines(in: directory) { try target.append(line, of: name) }
            segment = target
            // The one by which it is known comes last: should this life end before, the next one does it again.
            for file in [report, process, attempt] where directory.exists(file) { try directory.removeFile(file) }
        }
    }

    private static func lines(in directory: borrowing Directory) throws(Errno) -> [JournalSegment.Line] {
        var lines: [JournalSegment.Line] = []
        if let json = try document(attempt, in: directory) { lines.append(.attempt(json.encoded())) }
        if let identity = try document(process, in: directory).flatMap(ProcessIdentity.init) {
            lines.append(.process(identity))
        }
        if let json = try document(report, in: directory) { lines.append(.report(json.encoded())) }
        // Nothing could be read: it is told as an attempt whose beginning is missing, and closed.
        return lines.isEmpty ? [.report(JSON.null.encoded())] : lines
    }

    /// Nil for what is missing or cannot be read: a file that was being written when the host died.
    private static func document(_ name: String, in directory: borrowing Directory) throws(Errno) -> JSON? {
        guard directory.exists(name) else { return nil }
        let bytes = try directory.read(name, limit: limit) ?? []
        do throws(JSONError) {
            return try JSON(parsing: bytes)
        } catch {
            return nil
        }
    }
}
