import CProcess
import EventLoop
import Glibc

/// An open directory whose entries are reached without ever following a symbolic link.
///
/// Jobs write into these places, so a name may change its meaning at any time; every step goes from a descriptor
/// that is already open.
struct Directory: ~Copyable, Sendable {
    let descriptor: Descriptor
    private let device: dev_t

    init(owning descriptor: consuming Descriptor) throws(Errno) {
        device = try descriptor.status().st_dev
        self.descriptor = descriptor
    }

    /// Opens a directory by a path that the administrator has chosen; links in it are followed.
    init(path: String) throws(Errno) {
        try self.init(owning: Descriptor(path: path, flags: O_RDONLY | O_DIRECTORY))
    }

    /// Makes the directory and those above it where they are missing, then opens it.
    init(creating path: String) throws(Errno) {
        do throws(Errno) {
            // The usual case costs one call.
            try self.init(path: path)
            return
        } catch {
            guard error == .noSuchFile else { throw error }
        }
        var made = path.hasPrefix("/") ? "" : "."
        for part in path.split(separator: "/") {
            made += "/\(part)"
            guard unsafe mkdir(made, 0o755) == 0 || Errno.current == .exists || access(made, F_OK) == 0 else {
                throw Errno.current
            }
        }
        try self.init(path: path)
    }

    /// Opens an entry that is a directory. Throws ``Errno/notDirectory`` or ``Errno/symbolicLink`` for a link.
    borrowing func open(_ name: String) throws(Errno) -> Directory {
        let flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW
        return try Directory(owning: Descriptor(at: descriptor.number, path: name, flags: flags))
    }

    /// Makes the entry a directory and opens it. Anything else under this name (a link that a job has left to lead
    /// the next one astray) is removed.
    borrowing func make(_ name: String) throws(Errno) -> Directory {
        for _ in 0..<2 {
            _ = try makeNew(name)
            do throws(Errno) {
                return try open(name)
            } catch {
                guard error == .notDirectory || error == .symbolicLink else { throw error }
                guard unsafe unlinkat(descriptor.number, name, 0) == 0 || Errno.current == .noSuchFile else {
                    throw Errno.current
                }
            }
        }
        throw Errno(EBUSY)
    }

    /// Makes the directory a user's. Does nothing when it is.
    borrowing func give(to owner: JobUser) throws(Errno) {
        let status = try descriptor.status()
        guard status.st_uid != owner.user || status.st_gid != owner.group else { return }
        guard fchown(descriptor.number, owner.user, owner.group) == 0 else { throw Errno.current }
    }

    /// Lets a group make entries in the directory, and remove its own alone.
    borrowing func share(with group: gid_t) throws(Errno) { try open(to: group, with: 0o1770) }

    /// Lets a group list and enter the directory, whatever the umask was when it was made.
    borrowing func admit(_ group: gid_t) throws(Errno) { try open(to: group, with: 0o050) }

    /// Makes the directory a group's, and adds to its mode. Does nothing where it is so.
    private borrowing func open(to group: gid_t, with added: mode_t) throws(Errno) {
        let status = try descriptor.status()
        let mode: mode_t = status.st_mode & 0o7777 | added
        if status.st_gid != group, fchown(descriptor.number, uid_t.max, group) != 0 { throw Errno.current }
        if status.st_mode & 0o7777 != mode, fchmod(descriptor.number, mode) != 0 { throw Errno.current }
    }

    /// Opens an entry that is nearly always there; makes it like ``make(_:)`` when it is not a directory yet.
    borrowing func openOrMake(_ name: String) throws(Errno) -> Directory {
        do throws(Errno) {
            return try open(name)
        } catch {
            return try make(name)
        }
    }

    /// Gives the descriptor away.
    consuming func intoDescriptor() -> Descriptor { descriptor }

    borrowing func exists(_ name: String) -> Bool {
        unsafe faccessat(descriptor.number, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0
    }

    /// Makes a directory; false when there is something of that name.
    borrowing func makeNew(_ name: String) throws(Errno) -> Bool {
        if unsafe mkdirat(descriptor.number, name, 0o755) == 0 { return true }
        guard Errno.current == .exists else { throw Errno.current }
        return false
    }

    /// Gives an entry another name; false when there is something of that name.
    borrowing func renameIfFree(_ name: String, to new: String) throws(Errno) -> Bool {
        if unsafe cprocess_rename_new(descriptor.number, name, new) == 0 { return true }
        guard Errno.current == .exists else { throw Errno.current }
        return false
    }

    borrowing func rename(_ name: String, to new: String) throws(Errno) {
        guard unsafe renameat(descriptor.number, name, descriptor.number, new) == 0 else { throw Errno.current }
    }

    /// What is known of an entry itself, not of what it may link to.
    borrowing func status(of name: String) throws(Errno) -> stat {
        var status = stat()
        guard unsafe fstatat(descriptor.number, name, &status, AT_SYMLINK_NOFOLLOW) == 0 else { throw Errno.current }
        return status
    }

    /// The names in the directory, in no order, without `.` and `..`.
    borrowing func names() throws(Errno) -> [String] {
        // A descriptor of its own: reading moves the position, and closedir closes it.
        let number = unsafe cprocess_openat(descriptor.number, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
        guard number >= 0 else { throw Errno.current }
        guard let stream = unsafe fdopendir(number) else {
            let error = Errno.current
            close(number)
            throw error
        }
        defer { unsafe closedir(stream) }
        var names: [String] = []
        while let entry = unsafe readdir(stream) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { name in
                unsafe name.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }

    /// Writes a file in one step: a reader sees all of it or none.
    /// - Parameter durable: bring the file and its name onto the disk before returning.
    borrowing func write(_ bytes: [UInt8], to name: String, durable: Bool) throws(Errno) {
        let temporary = ".\(name).new"
        do {
            let flags = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW
            let file = try Descriptor(at: descriptor.number, path: temporary, flags: flags, mode: 0o644)
            try file.write(bytes[...])
            if durable { try file.synchronize() }
        }
        try rename(temporary, to: name)
        if durable { try descriptor.synchronize() }
    }

    /// Writes into a file that is there: one of a file system whose files are switches.
    borrowing func writeInPlace(_ text: String, to name: String) throws(Errno) {
        try Descriptor(at: descriptor.number, path: name, flags: O_WRONLY | O_NOFOLLOW).write(Array(text.utf8)[...])
    }

    /// Removes a directory that holds nothing; false when that cannot be done now.
    borrowing func removeEmptyDirectory(_ name: String) -> Bool {
        unsafe unlinkat(descriptor.number, name, AT_REMOVEDIR) == 0
    }

    /// Removes an entry that is no directory.
    borrowing func removeFile(_ name: String) throws(Errno) {
        guard unsafe unlinkat(descriptor.number, name, 0) == 0 else { throw Errno.current }
    }

    /// Removes an entry that is a directory which holds nothing but files with these names, or fewer, quicker than
    /// ``remove(_:)``; false when it holds anything else.
    borrowing func remove(_ name: String, holding files: [String]) throws(Errno) -> Bool {
        let directory = try open(name)
        for file in files { _ = unsafe unlinkat(directory.descriptor.number, file, 0) }
        return removeEmptyDirectory(name)
    }

    /// Reads a regular file; nil when it is longer than the limit.
    borrowing func read(_ name: String, limit: Int) throws(Errno) -> [UInt8]? {
        // Not blocking: a job may have put a pipe under this name.
        let file = try Descriptor(at: descriptor.number, path: name, flags: O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
        guard try file.status().st_mode & S_IFMT == S_IFREG else { throw Errno(EINVAL) }
        return try file.readAll(limit: limit)
    }
}

// MARK: whole trees

extension Directory {
    /// Deepest level that is walked with open descriptors.
    private static var walkDepth: Int { 32 }

    /// Removes an entry and everything below it. A name that is not there is fine; links are removed, never
    /// followed; another file system that is mounted inside is left alone, with an error.
    borrowing func remove(_ name: String) throws(Errno) {
        var moved = MovedDirectories(top: descriptor.number, prefix: ".removing-\(name.prefix(128))-")
        try remove(name, depth: 0, moved: &moved)
        // What lay deeper than is walked was moved up next to the entry, and may again be as deep.
        var next = 0
        while next < moved.count {
            try remove(moved.name(next), depth: 0, moved: &moved)
            next += 1
        }
    }

    /// Directories that were too deep and now lie where the removal began.
    private struct MovedDirectories {
        let top: Int32
        let prefix: String
        private(set) var count = 0

        init(top: Int32, prefix: String) {
            self.top = top
            self.prefix = prefix
        }

        func name(_ index: Int) -> String { "\(prefix)\(index)" }

        mutating func take(_ name: String, from directory: Int32) throws(Errno) {
            guard unsafe renameat(directory, name, top, self.name(count)) == 0 else { throw Errno.current }
            count += 1
        }
    }

    private borrowing func remove(_ name: String, depth: Int, moved: inout MovedDirectories) throws(Errno) {
        if unsafe unlinkat(descriptor.number, name, 0) == 0 { return }
        switch Errno.current {
        case .noSuchFile: return
        case .isDirectory, .notPermitted: break  // what a directory answers; POSIX says the latter
        default: throw Errno.current
        }
        let directory = try openForRemoval(name)
        guard directory.device == device else { throw Errno(EXDEV) }
        for child in try directory.names() {
            if depth < Self.walkDepth {
                try directory.remove(child, depth: depth + 1, moved: &moved)
            } else if unsafe unlinkat(directory.descriptor.number, child, 0) != 0 {
                try moved.take(child, from: directory.descriptor.number)
            }
        }
        guard unsafe unlinkat(descriptor.number, name, AT_REMOVEDIR) == 0 || Errno.current == .noSuchFile else {
            throw Errno.current
        }
    }

    /// Opens a directory whose owner may have taken his own rights away.
    private borrowing func openForRemoval(_ name: String) throws(Errno) -> Directory {
        do throws(Errno) {
            return try open(name)
        } catch  where error == .accessDenied {
            guard unsafe fchmodat(descriptor.number, name, 0o700, 0) == 0 else { throw error }
            return try open(name)
        }
    }

    /// The bytes on disk of an entry and everything below it, down to the depth that is walked. What cannot be read
    /// counts as nothing.
    borrowing func size(of name: String) -> UInt64 { size(of: name, depth: 0) }

    private borrowing func size(of name: String, depth: Int) -> UInt64 {
        do throws(Errno) {
            let status = try status(of: name)
            let own = UInt64(max(0, status.st_blocks)) * 512
            guard status.st_mode & S_IFMT == S_IFDIR, depth < Self.walkDepth else { return own }
            let directory = try open(name)
            guard directory.device == device else { return own }
            var total = own
            for child in try directory.names() { total += directory.size(of: child, depth: depth + 1) }
            return total
        } catch {
            return 0
        }
    }
}
