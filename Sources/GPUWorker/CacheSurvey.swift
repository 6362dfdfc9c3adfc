import CProcess
import Glibc
import JobModel
import ServiceSupport

/// Looks at a card's cache as an unprivileged process sees it. Its calls may hang on a sick disk.
struct CacheSurvey: Sendable {
    /// The cache: `MERGE_ROOT/gpuN`.
    let path: String
    /// Where gpucache-ctl notes what happened last: `RAM_ROOT/gpuN.state`.
    let notes: String

    /// What was found, without who tells it.
    struct Findings: Sendable {
        var mode = CacheReport.Mode.missing
        var sizeBytes: UInt64?
        var usedBytes: UInt64?
        var sync: String?
        var note: String?
        var holds: [CacheKey] = []
        var isCut = false
    }

    /// Entries that one look reads at most, so that it stays cheap whatever jobs leave there.
    private static let entryLimit = 2048
    /// The directory of the jobs' own directories, which nobody asks for.
    private static let jobs = "tasks"

    /// - Parameter asked: names that jobs have asked for; those that exist come first in what the cache holds.
    func look(asked: [CacheKey]) -> Findings {
        var findings = Findings()
        measure(&findings)
        findings.sync = noted("sync")
        findings.note = noted("event") ?? noted("problem")
        let found = asked.filter { exists($0) }
        let listed = findings.mode == .missing ? (names: [], isCut: false) : listing()
        let all = Set(found).union(listed.names)
        // Those that were asked for, then those nearest to the top.
        let ranked = all.sorted { (rank($0, found), $0) < (rank($1, found), $1) }
        findings.holds = ranked.prefix(CacheReport.holdsLimit).sorted()
        findings.isCut = listed.isCut || all.count > CacheReport.holdsLimit
        return findings
    }

    private func rank(_ key: CacheKey, _ asked: [CacheKey]) -> Int {
        asked.contains(key) ? 0 : 1 + key.path.utf8.count(where: { $0 == UInt8(ascii: "/") })
    }

    private func measure(_ findings: inout Findings) {
        var facts = cprocess_filesystem_facts()
        guard unsafe cprocess_filesystem(path, &facts) == 0 else { return }
        findings.mode = facts.is_overlay != 0 ? .overlay : .plain
        guard facts.is_overlay != 0 else { return }
        // An overlay tells the room of what it writes to: the memory.
        findings.sizeBytes = facts.size
        findings.usedBytes = facts.size - min(facts.size, facts.free)
    }

    /// The last word of gpucache-ctl on something; nil when there is none.
    private func noted(_ name: String) -> String? {
        // Without gpucache on this machine there is no such file, and nothing to tell.
        guard let bytes = try? FileContents.read("\(notes)/\(name)", limit: 4096) else { return nil }
        let text = String(decoding: bytes.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
        return text.isEmpty ? nil : text
    }

    private func exists(_ key: CacheKey) -> Bool {
        var facts = stat()
        return unsafe stat(key.path.hasPrefix("/") ? key.path : "\(path)/\(key.path)", &facts) == 0
    }

    /// The names of the first two levels.
    private func listing() -> (names: [CacheKey], isCut: Bool) {
        var names: [CacheKey] = []
        var left = Self.entryLimit
        let top = entries(of: path, &left).filter { $0.name != Self.jobs }
        for entry in top {
            if let key = CacheKey(entry.name) { names.append(key) }
            guard entry.mayBeDirectory else { continue }
            for inner in entries(of: "\(path)/\(entry.name)", &left) {
                if let key = CacheKey("\(entry.name)/\(inner.name)") { names.append(key) }
            }
        }
        return (names, left == 0)
    }

    private func entries(of directory: String, _ left: inout Int) -> [(name: String, mayBeDirectory: Bool)] {
        guard let stream = unsafe opendir(directory) else { return [] }
        defer { unsafe closedir(stream) }
        var entries: [(String, Bool)] = []
        while left > 0, let entry = unsafe readdir(stream) {
            left -= 1
            let kind = unsafe Int(entry.pointee.d_type)
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                unsafe pointer.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
            }
            if name.hasPrefix(".") { continue }
            // A plain cache shows its base by links.
            entries.append((name, kind == DT_DIR || kind == DT_LNK || kind == DT_UNKNOWN))
        }
        return entries
    }
}
