#ifndef CPROCESS_NAMESPACES_H
#define CPROCESS_NAMESPACES_H

/// From now on neither this process nor what it starts makes or enters a namespace, or gains rights by executing a
/// program. Safe in a child of vfork. Returns 0, or -1 (errno).
int cprocess_deny_namespaces(void);

#endif
